//! The real manager on a fake kernel, seeded.
