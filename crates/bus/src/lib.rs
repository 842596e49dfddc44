//! A sans-IO D-Bus peer: SASL, framing, descriptors, bounded queues.
