//! All integration tests in one binary: it is linked once, and tests of different files run at the same time.

mod access;
mod api;
mod architecture;
mod backfills;
mod bad_input;
mod clients;
mod cloud;
mod crashes;
mod dag_files;
mod doctor;
mod endurance;
mod flow;
mod health;
mod kills;
mod lifecycle;
mod limits;
mod logs;
mod postgres;
mod presence;
mod registry;
mod rest;
mod restart;
mod service;
mod settings;
mod verbs;
mod watch;
