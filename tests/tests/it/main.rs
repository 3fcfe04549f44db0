//! All integration tests in one binary: it is linked once, and tests of different files run at the same time.

mod access;
mod architecture;
mod backfills;
mod bad_input;
mod clients;
mod crashes;
mod flow;
mod limits;
mod logs;
mod postgres;
mod rest;
mod restart;
mod settings;
mod verbs;
