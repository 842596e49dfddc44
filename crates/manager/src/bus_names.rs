//! Whose a name on the bus is (systemd.service(5), `BusName=`): a service's alone. The unit that was loaded first has it; what names
//! it too cannot be loaded.
//!
//! What must stay true: `State::bus_names` knows the name of each loaded service that has one; who was refused is read again
//! at each reload, since the other may have let go.

use crate::effect::Level;
use crate::manager::Manager;
use muster_graph::UnitId;
use muster_unit::{Body, LoadState};
use std::rc::Rc;

impl Manager {
    /// A unit was read: the name that it says is its own from now on, or it is refused.
    pub(crate) fn claim_bus_name(&mut self, id: UnitId) {
        self.state.bus_names_refused.remove(&id);
        let Some(unit) = self.state.units.get(&id) else { return };
        let Body::Service(section) = &unit.file.body else { return };
        let Some(name) = section.bus_name().as_deref().map(str::to_owned) else { return };
        let owner = *self.state.bus_names.entry(name.clone()).or_insert(id);
        if owner == id || unit.file.load_state != LoadState::Loaded {
            return;
        }
        let text = format!("Two services allocated for the same bus name {name}, refusing operation.");
        self.log(Level::Error, Some(id), format!("{}: {text}", self.unit_name(id)));
        self.state.bus_names_refused.insert(id);
        if let Some(unit) = self.state.units.edit(&id) {
            let file = Rc::make_mut(&mut unit.file);
            file.load_state = LoadState::Error;
            file.load_error = Some("File exists".to_owned());
        }
    }

    /// A unit goes, or is read anew.
    pub(crate) fn release_bus_name(&mut self, id: UnitId) {
        let Some(unit) = self.state.units.get(&id) else { return };
        let Body::Service(section) = &unit.file.body else { return };
        if let Some(name) =
            section.bus_name().as_deref().filter(|name| self.state.bus_names.get(*name) == Some(&id))
        {
            self.state.bus_names.remove(name);
        }
        self.state.bus_names_refused.remove(&id);
    }
}
