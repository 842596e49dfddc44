//! The queue beside a model of it that keeps a plain list and looks at every job every time.

use super::*;

/// xorshift64*.
fn draw(seed: &mut u64, below: u64) -> u64 {
    *seed ^= *seed >> 12;
    *seed ^= *seed << 25;
    *seed ^= *seed >> 27;
    (seed.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % below
}

/// (number, unit, type, running, ready), oldest first.
#[derive(Default)]
struct Model {
    jobs: Vec<(u32, UnitId, JobType, bool)>,
    last: u32,
}

impl Model {
    fn at(&self, unit: UnitId) -> Option<usize> {
        self.jobs.iter().position(|job| job.1 == unit)
    }
    fn install(&mut self, unit: UnitId, kind: JobType, active: bool) -> Installed {
        let Some(at) = self.at(unit) else {
            self.last += 1;
            self.jobs.push((self.last, unit, kind, false));
            return Installed::New(JobId(self.last));
        };
        let job = &mut self.jobs[at];
        match job.2.merge(kind).map(|kind| kind.collapse(active)) {
            None => Installed::Against(JobId(job.0)),
            Some(both) => {
                job.3 &= both == job.2 && both != JobType::Reload;
                job.2 = both;
                Installed::Merged(JobId(job.0))
            }
        }
    }
    /// Every job that could begin now.
    fn free(&self, graph: &Graph) -> Vec<u32> {
        let goes_down = |kind| matches!(kind, JobType::Stop | JobType::Restart);
        let waits = |one: &(u32, UnitId, JobType, bool), other: &(u32, UnitId, JobType, bool)| {
            (graph.has(one.1, Dependency::After, other.1) && !goes_down(one.2))
                || (graph.has(one.1, Dependency::Before, other.1) && goes_down(other.2))
        };
        let free = |job: &&(u32, UnitId, JobType, bool)| {
            !job.3 && !self.jobs.iter().any(|other| other.0 != job.0 && waits(job, other))
        };
        self.jobs.iter().filter(free).map(|job| job.0).collect()
    }
    fn end(&mut self, graph: &Graph, id: u32, result: JobResult) -> BTreeSet<u32> {
        let Some(at) = self.jobs.iter().position(|job| job.0 == id) else { return BTreeSet::new() };
        let job = self.jobs.remove(at);
        let mut ended = BTreeSet::from([id]);
        if result.is_fulfilled() {
            return ended;
        }
        let falls = |other: &&(u32, UnitId, JobType, bool)| {
            let needs = [Dependency::Requires, Dependency::Requisite, Dependency::BindsTo];
            other.2 == JobType::Start
                && match job.2 {
                    JobType::Start => needs.into_iter().any(|kind| graph.has(other.1, kind, job.1)),
                    JobType::Stop => graph.has(other.1, Dependency::Conflicts, job.1),
                    _ => false,
                }
        };
        let falling: Vec<u32> = self.jobs.iter().filter(falls).map(|job| job.0).collect();
        falling.into_iter().for_each(|id| ended.extend(self.end(graph, id, JobResult::Dependency)));
        ended
    }
}

#[test]
fn the_queue_does_what_its_model_does() {
    for first in 1..400_u64 {
        let (mut seed, units) = (first, 2 + u32::try_from(first % 9).unwrap());
        let mut graph = Graph::default();
        for _ in 0..units * 2 {
            let kinds = [
                Dependency::After,
                Dependency::Before,
                Dependency::Requires,
                Dependency::BindsTo,
                Dependency::Requisite,
                Dependency::Conflicts,
            ];
            let kind = kinds[draw(&mut seed, 6) as usize];
            let mut any = || draw(&mut seed, u64::from(units)) as u32;
            graph.add(UnitId(any()), kind, UnitId(any()));
        }
        let (mut queue, mut model) = (Queue::default(), Model::default());
        for step in 0..200 {
            let place = format!("seed {first}, step {step}");
            let unit = UnitId(draw(&mut seed, u64::from(units)) as u32);
            match draw(&mut seed, 6) {
                0..=2 => {
                    let kinds = [JobType::Start, JobType::Stop, JobType::Restart, JobType::Reload];
                    let kind = kinds[draw(&mut seed, 4) as usize];
                    let active = draw(&mut seed, 2) == 0;
                    let order = Order {
                        unit,
                        kind,
                        irreversible: false,
                        ignore_order: false,
                        asked: false,
                        now_usec: 0,
                        deadline_usec: u64::MAX,
                        cause: String::new(),
                    };
                    let (got, expected) = (queue.install(order, active), model.install(unit, kind, active));
                    assert_eq!(got, expected, "{place}");
                    if let Installed::Against(id) = got {
                        let ended = queue.end(&graph, id, JobResult::Canceled, false, |_| false);
                        assert_eq!(ended.len(), 1, "{place}");
                        model.jobs.retain(|job| job.0 != id.0);
                    }
                }
                3 => {
                    if let Some(id) = queue.of(unit).map(|job| job.id) {
                        let results = [JobResult::Done, JobResult::Failed, JobResult::Canceled];
                        let result = results[draw(&mut seed, 3) as usize];
                        let ended: BTreeSet<u32> = queue
                            .end(&graph, id, result, true, |_| false)
                            .iter()
                            .map(|(job, _)| job.id.0)
                            .collect();
                        assert_eq!(ended, model.end(&graph, id.0, result), "{place}");
                    }
                }
                4 => {
                    if let Some(job) =
                        queue.of(unit).filter(|job| job.kind == JobType::Restart && job.running)
                    {
                        queue.turn(job.id, JobType::Start);
                        let at = model.at(unit).unwrap();
                        (model.jobs[at].2, model.jobs[at].3) = (JobType::Start, false);
                    }
                }
                // Everything that may run begins: the very jobs that the model finds by looking at all pairs.
                _ => {
                    let mut began = Vec::new();
                    let expected = model.free(&graph);
                    while let Some(id) = queue.pop() {
                        if queue.may_run(&graph, id) {
                            queue.begin(id, 1);
                            began.push(id.0);
                        }
                    }
                    // The queue also breaks circles, of which the model knows nothing.
                    let breaks = |id: &u32| queue.get(&JobId(*id)).is_some_and(|job| job.untied);
                    let regular: Vec<u32> = began.iter().copied().filter(|id| !breaks(id)).collect();
                    let expected: Vec<u32> = expected.into_iter().filter(|id| !breaks(id)).collect();
                    assert_eq!(regular, expected, "{place}");
                    model.jobs.iter_mut().filter(|job| began.contains(&job.0)).for_each(|job| job.3 = true);
                }
            }
            assert_eq!(queue.check(), Vec::<String>::new(), "{place}");
            let all: Vec<_> = queue.values().map(|job| (job.id.0, job.unit, job.kind, job.running)).collect();
            assert_eq!(all, model.jobs, "{place}");
        }
    }
}

#[test]
fn a_reload_that_is_asked_for_while_it_runs_is_done_again() {
    let (graph, mut queue) = (Graph::default(), Queue::default());
    let order = |kind| Order {
        unit: UnitId(1),
        kind,
        irreversible: false,
        ignore_order: false,
        asked: false,
        now_usec: 0,
        deadline_usec: u64::MAX,
        cause: String::new(),
    };
    assert_eq!(queue.install(order(JobType::Reload), true), Installed::New(JobId(1)));
    let id = queue.pop().unwrap();
    assert!(queue.may_run(&graph, id));
    queue.begin(id, 1);
    assert_eq!(queue.install(order(JobType::Reload), true), Installed::Merged(id));
    assert!(queue.get(&id).is_some_and(|job| !job.running));
    assert_eq!(queue.pop(), Some(id));
}
