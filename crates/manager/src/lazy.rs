//! State that most units never have: held only once something was written to it.
//!
//! Reading gives the default until then. What was never written and what was written back to the default are equal.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::ops::{Deref, DerefMut};

/// A type with one value that all who never wrote share.
pub trait Resting: Default + 'static {
    /// The default value, shared.
    fn resting() -> &'static Self;
}

macro_rules! resting {
    ($($type:ty),* $(,)?) => {$(
        impl $crate::lazy::Resting for $type {
            fn resting() -> &'static Self {
                static RESTING: std::sync::LazyLock<$type> = std::sync::LazyLock::new(Default::default);
                &RESTING
            }
        }
    )*};
}
pub(crate) use resting;

/// A value that takes a pointer's room until it is written.
#[derive(Clone, Debug)]
pub struct Lazy<T>(Option<Box<T>>);

impl<T> Default for Lazy<T> {
    fn default() -> Self {
        Lazy(None)
    }
}

impl<T: Resting> Deref for Lazy<T> {
    type Target = T;
    fn deref(&self) -> &T {
        match &self.0 {
            Some(value) => value,
            None => T::resting(),
        }
    }
}

impl<T: Resting> DerefMut for Lazy<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_default()
    }
}

impl<T: Resting + PartialEq> PartialEq for Lazy<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Serialize> Serialize for Lazy<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Lazy<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Lazy(Option::deserialize(deserializer)?))
    }
}
