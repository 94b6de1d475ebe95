//! THE BUNDLED CHILDREN: processes of our own image that are supervised like any program. They do not know each other.

pub mod log;
