//! The contracts of Fusebox: what a person declares, what is published, what is reported back.
//!
//! In code a policy is made by a [`PolicyBuilder`].
//!
//! # Guarantees
//! - No I/O, no clock, no randomness: everything here is a function of its arguments.
//! - A [`Policy`] cannot hold a zero timeout, a percentage above 100 or a window shorter than a
//!   second: such a document does not deserialize, whatever wrote it.
//! - The bytes of a wire document are fixed by golden files; a change of meaning raises [`wire::SCHEMA`].
//!
//! # Features
//! - `crd`: the custom resource (`v1alpha1`) and its merge into a [`Policy`] (`merge`).

pub mod access;
mod answer;
mod breaker;
mod builder;
mod codes;
pub mod duration;
pub mod keys;
mod limits;
#[cfg(feature = "crd")]
pub mod merge;
mod method_match;
pub mod policy;
pub mod reason;
mod rules;
#[cfg(feature = "crd")]
pub mod v1alpha1;
pub mod wire;

pub use policy::{InvalidPolicy, Policy, PolicyBuilder};
