//! What is on the bus: interfaces, their introspection, and what is sent.

pub mod interfaces;
pub mod introspect;
pub mod outbox;
