//! Pure: tests.

use serde_json::json;

use super::*;

fn api_error(status: Value) -> kube::Error {
    kube::Error::Api(serde_json::from_value(status).unwrap())
}

/// As an apiserver 1.36 answers.
fn field_conflict(field: &str) -> kube::Error {
    api_error(json!({
        "status": "Failure", "code": 409, "reason": "Conflict",
        "message": "Apply failed with 1 conflict: conflict with \"kubectl\" using apps/v1: .spec…",
        "details": {"causes": [{
            "reason": "FieldManagerConflict",
            "message": "conflict with \"kubectl\" using apps/v1",
            "field": field,
        }]},
    }))
}

#[test]
fn a_conflict_over_the_stamp_names_the_other_field_manager() {
    let field = format!(".spec.template.metadata.annotations.{SECRETS_HASH}");
    let error = apply_error(field_conflict(&field));
    assert!(matches!(error, ExecError::Conflict { manager } if manager == "kubectl"));
}

#[test]
fn other_refusals_are_no_conflict_over_the_stamp() {
    let uid = api_error(json!({
        "status": "Failure", "code": 409, "reason": "Conflict",
        "message": "uid mismatch: the provided object specified uid w1, and no existing object was found",
    }));
    assert!(matches!(apply_error(uid), ExecError::Apply(_)));
    let other = apply_error(field_conflict(".metadata.annotations.lockstep.dev/in-step"));
    assert!(matches!(other, ExecError::Apply(_)));
}

#[test]
fn what_only_somebody_else_can_change_is_a_refusal() {
    let answered = |code: u16| ExecError::Apply(Box::new(api_error(json!({"code": code}))));
    for (code, refusal) in [
        (403, true),
        (422, true),
        (404, false),
        (409, false),
        (429, false),
        (500, false),
    ] {
        assert_eq!(answered(code).is_refusal(), refusal, "{code}");
    }
    assert!(!ExecError::TimedOut.is_refusal());
}

#[test]
fn the_line_for_a_status_says_what_the_apiserver_said_and_is_bounded() {
    let long = "x".repeat(1000);
    let refused = ExecError::Apply(Box::new(api_error(
        json!({"code": 403, "message": "forbidden: no"}),
    )));
    assert_eq!(
        refused.line(),
        "writing the annotation failed: forbidden: no"
    );
    assert_eq!(refused.to_string(), "writing the annotation failed");
    let bounded = ExecError::ListPods(Box::new(api_error(json!({"code": 500, "message": long}))));
    assert!(bounded.line().len() < 350);
    assert_eq!(
        ExecError::TimedOut.line(),
        "the apiserver did not answer within 10 seconds"
    );
}
