//! Scripts over a tree in memory.
