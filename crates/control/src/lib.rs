//! org.freedesktop.systemd1: the member table, authorization, introspection.
