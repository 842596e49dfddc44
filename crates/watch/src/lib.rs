//! Kernel sources as events: the mount table, inotify, clock jumps.
