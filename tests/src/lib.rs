//! Black-box tests of the `postrider` command live in `e2e/`; this library is empty.
