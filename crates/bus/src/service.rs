//! The names of our own service on the system bus (client spec, 15.1).

/// The bus name.
pub const NAME: &str = "com.canonical.SystemImage";

/// The only object.
pub const PATH: &str = "/Service";

/// The interface with the original's methods and signals.
pub const INTERFACE: &str = "com.canonical.SystemImage";

/// The interface for new callers, on the same object.
pub const MODERN_INTERFACE: &str = "com.canonical.SystemImage1";
