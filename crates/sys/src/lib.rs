//! The crate that may say unsafe: clone3, pidfds, raw socket options.
