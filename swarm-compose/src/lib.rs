//! Stack files: parsing, interpolation, merging and conversion to service specs.
