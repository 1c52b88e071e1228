//! A table of tokens that must not be believed.
