//! A socket unit's configuration to bound descriptors, accept, and descriptor passing.
