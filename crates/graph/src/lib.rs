//! Dependencies, jobs, transactions, ordering and cycles: pure data and algorithms.
