//! All state: one module per unit type, jobs, limits and causes. Events in, effects out.
