//! The execution context, its compilation into steps, the spawn protocol and the executor.
