//! The cgroup tree: directories, attributes, events, emptiness.
