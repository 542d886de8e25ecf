//! The checker finds what is wrong, and nothing else.
