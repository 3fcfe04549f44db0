//! The Python package and the migrations are compiled in: a change there is a change here.

fn main() {
    for path in ["../modal_functions/airflow_serverless", "../modal_functions/requirements.lock", "migrations"] {
        println!("cargo::rerun-if-changed={path}");
    }
}
