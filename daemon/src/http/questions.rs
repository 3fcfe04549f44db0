//! Questions of human-in-the-loop tasks.

use airflow_serverless_api::{
    environment::EnvironmentName,
    question::{AnswerQuestion, ListQuestions, QuestionList, Response},
    routes,
};
use axum::{Json, extract::State};

use super::{
    Services,
    extract::{self, Path, Query},
    problem::Answer,
};

/// List open questions of human-in-the-loop tasks, oldest first
#[utoipa::path(
    get, path = routes::QUESTIONS.template, tag = "tasks",
    params(("environment" = EnvironmentName, Path), ListQuestions),
    responses((status = 200, body = QuestionList))
)]
pub(super) async fn list_questions(
    State(services): State<Services>,
    Path(environment): Path<EnvironmentName>,
    Query(query): Query<ListQuestions>,
) -> Answer<Json<QuestionList>> {
    Ok(Json(services.deployed(&environment).await?.list_questions(&query).await?))
}

/// Answer the question of a human-in-the-loop task, which then continues
#[utoipa::path(
    patch, path = routes::TASK_QUESTION.template,
    tag = "tasks", request_body = AnswerQuestion,
    params(
        ("environment" = EnvironmentName, Path), ("dag_id" = String, Path), ("dag_run_id" = String, Path),
        ("task_id" = String, Path),
    ),
    responses((status = 200, body = Response))
)]
pub(super) async fn answer_question(
    State(services): State<Services>,
    Path((environment, dag_id, run_id, task_id)): Path<(EnvironmentName, String, String, String)>,
    extract::Json(request): extract::Json<AnswerQuestion>,
) -> Answer<Json<Response>> {
    let task = (dag_id.as_str(), run_id.as_str(), task_id.as_str());
    Ok(Json(services.deployed(&environment).await?.answer_question(task, &request).await?))
}
