//! All integration tests in one binary: it is linked once, and tests of different files run at the same time.

mod architecture;
mod backfills;
mod bad_input;
mod clients;
mod crashes;
mod doctor;
mod flow;
mod lifecycle;
mod logs;
mod postgres;
mod rest;
mod restart;
mod service;
mod settings;
mod verbs;
