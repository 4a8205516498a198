package api

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"quorate/api/neon"
)

func TestErrorsLookAsClientsMatchThem(t *testing.T) {
	for code, want := range map[neon.Code]string{
		neon.BadRequest:         `400 {"msg":"\"a \\\"b\\\"\\n\\u{7}é\""}`,
		neon.Unauthorized:       `401 {"msg":"Unauthorized: a \"b\"\n\u0007é"}`,
		neon.Forbidden:          `403 {"msg":"Forbidden: a \"b\"\n\u0007é"}`,
		neon.NotFound:           `404 {"msg":"NotFound: a \"b\"\n\u0007é"}`,
		neon.Timeout:            `408 {"msg":"a \"b\"\n\u0007é"}`,
		neon.Conflict:           `409 {"msg":"Conflict: a \"b\"\n\u0007é"}`,
		neon.PreconditionFailed: `412 {"msg":"Precondition failed: a \"b\"\n\u0007é"}`,
		neon.TooManyRequests:    `429 {"msg":"a \"b\"\n\u0007é"}`,
		neon.Internal:           `500 {"msg":"a \"b\"\n\u0007é"}`,
		neon.Cancelled:          `500 {"msg":"Request cancelled"}`,
		neon.Unavailable:        `503 {"msg":"a \"b\"\n\u0007é"}`,
		neon.ShuttingDown:       `503 {"msg":"Shutting down"}`,
		neon.NotLeader:          `503 {"msg":"a \"b\"\n\u0007é"}`,
		neon.OutcomeUnknown:     `503 {"msg":"Outcome unknown: a \"b\"\n\u0007é"}`,
	} {
		for _, err := range []error{
			neon.Errorf(code, "a \"b\"\n\aé"),
			fmt.Errorf("around: %w", neon.Errorf(code, "a \"b\"\n\aé")),
		} {
			a := errorAnswer(err)
			if got := fmt.Sprintf("%d %s", a.status, a.body); got != want {
				t.Errorf("%s:\n got %s\nwant %s", code, got, want)
			}
		}
	}
	if len(rules) != 14 {
		t.Errorf("%d classes have a rule", len(rules))
	}
}

func TestErrorsOfNoClassAreInternalAndContextsTheirOwn(t *testing.T) {
	for want, err := range map[string]error{
		`500 {"msg":"boom"}`:                      errors.New("boom"),
		`408 {"msg":"context deadline exceeded"}`: fmt.Errorf("%w", context.DeadlineExceeded),
		`500 {"msg":"Request cancelled"}`:         context.Canceled,
		`500 {"msg":"odd"}`:                       neon.Errorf("odd code", "odd"),
	} {
		a := errorAnswer(err)
		if got := fmt.Sprintf("%d %s", a.status, a.body); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestPanicOfAHandlerIsAnAnswer(t *testing.T) {
	w := newWorld(t, setup{})
	w.addNodes(1)
	w.replicas[0].await = func(context.Context) error { panic("boom") }
	w.replicas[0].do("POST", "/v1/tenant", `{"new_tenant_id":"`+tenantA+`"}`).want(t, 500,
		`{"msg":"internal error"}`)
	w.replicas[0].do("GET", "/status", "").want(t, 200, `null`)
}
