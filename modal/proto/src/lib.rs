//! The subset of Modal's control-plane API that this project speaks: messages, client and server.
//!
//! Everything in `proto/*.proto` is re-exported here under its own name: [`modal_client_client::ModalClientClient`]
//! calls a server, [`modal_client_server::ModalClient`] is the trait of one. Fields marked `relayed` are `bytes` on
//! purpose (see `proto/service.proto`): decode them with [`prost::Message::decode`] into the message they name.
//!
//! `generated.rs` is written by `make proto`, so that a build does not need the generator; a test fails while it is stale.

#![allow(clippy::large_enum_variant, missing_docs)]

include!("generated.rs");

/// The gRPC path prefix of every method, with both slashes.
pub const SERVICE_PATH: &str = "/modal.client.ModalClient/";

/// The SDK release whose descriptors the subset follows; sent as `x-modal-client-version`.
pub const SDK_VERSION: &str = "1.6.4";
