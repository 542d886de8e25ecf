//! Black-box tests of the `postrider` command.
