//! The mio loop: readiness to events, effects to system calls.
