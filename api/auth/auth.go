// Package auth verifies the tokens that requests carry: JSON web tokens that name one
// scope and are signed with Ed25519.
//
// It does not issue tokens, and it does not know which route wants which scope.
package auth

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"quorate/api/neon"
)

// Scope is the right that a token carries.
type Scope string

// None and Any are the two rights that no token names: None needs no token at all, and
// any valid token has Any.
const (
	None Scope = ""
	Any  Scope = "*"
)

// The scopes that a token may name. Some of them admit nothing here. They are known so
// that their tokens are refused for the right reason.
const (
	Tenant         Scope = "tenant"
	TenantEndpoint Scope = "tenantendpoint"
	PageserverAPI  Scope = "pageserverapi"
	SafekeeperData Scope = "safekeeperdata"
	Generations    Scope = "generations_api"
	Admin          Scope = "admin"
	Infra          Scope = "infra"
	Scrubber       Scope = "scrubber"
	Peer           Scope = "controller_peer"
)

func (s Scope) known() bool {
	switch s {
	case Tenant, TenantEndpoint, PageserverAPI, SafekeeperData,
		Generations,
		Admin, Infra, Scrubber, Peer:
		return true
	}
	return false
}

// admits reports whether a token of scope s may use a route that wants another.
func (s Scope) admits(want Scope) bool {
	return want == Any || s == want || s == Admin
}

const (
	// tokenLeeway is how long after its expiry a token is still taken.
	tokenLeeway = 60 * time.Second

	// keptTokens bounds the memory of tokens whose signature was verified.
	keptTokens = 1024
)

var (
	errNoHeader  = neon.Errorf(neon.Unauthorized, "missing authorization header")
	errBadHeader = neon.Errorf(neon.Unauthorized, "malformed authorization header")
	errBadToken  = neon.Errorf(neon.Forbidden, "JWT authentication error")
)

// claims is what is read of a token; everything else in it is ignored.
type claims struct {
	Scope      Scope            `json:"scope"`
	TenantID   *neon.TenantID   `json:"tenant_id"`
	EndpointID *string          `json:"endpoint_id"`
	Expiry     *json.Number     `json:"exp"`
	Audience   *json.RawMessage `json:"aud"`

	jwt.RegisteredClaims `json:"-"`
}

// grant is a verified token: what it admits and until when.
type grant struct {
	scope   Scope
	expires time.Time // zero: never
}

// Verifier verifies tokens. All methods may be called at any time.
type Verifier struct {
	keys   *Keys
	parser *jwt.Parser
}

// ring is a set of keys that does not change, with what was verified with it. Verified
// tokens are remembered, so that a client that keeps asking costs one signature check.
type ring struct {
	keys []ed25519.PublicKey

	mu     sync.Mutex
	tokens map[[sha256.Size]byte]grant // Invariant: at most keptTokens entries.
}

func newRing(keys []ed25519.PublicKey) *ring {
	return &ring{keys: keys, tokens: make(map[[sha256.Size]byte]grant)}
}

// NewVerifier takes the public keys of the issuers. Whoever replaces them ends what they
// have verified.
func NewVerifier(keys *Keys) *Verifier {
	return &Verifier{
		keys: keys,
		parser: jwt.NewParser(jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
			jwt.WithoutClaimsValidation()),
	}
}

// Check returns nil when a request may use a route that wants the scope, which is not
// None.
func (a *Verifier) Check(r *http.Request, want Scope) error {
	values := r.Header["Authorization"]
	if len(values) == 0 {
		return errNoHeader
	}
	kind, token, ok := strings.Cut(values[0], " ")
	if !ok || kind != "Bearer" {
		return errBadHeader
	}
	g, err := a.verify(token)
	if err != nil {
		return err
	}
	if !g.expires.IsZero() && time.Now().After(g.expires.Add(tokenLeeway)) {
		return errBadToken
	}
	if !g.scope.admits(want) {
		return errBadToken
	}
	return nil
}

func (a *Verifier) verify(token string) (grant, error) {
	r := a.keys.ring.Load()
	sum := sha256.Sum256([]byte(token))
	r.mu.Lock()
	g, ok := r.tokens[sum]
	r.mu.Unlock()
	if ok {
		return g, nil
	}
	g, err := a.parse(token, r.keys)
	if err != nil {
		return grant{}, neon.Errorf(neon.Forbidden, "JWT authentication error")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.tokens) >= keptTokens {
		clear(r.tokens)
	}
	r.tokens[sum] = g
	return g, nil
}

// parse takes the signature of any of the keys. The `kid` of a token is not looked at: it
// is whatever the sender says.
func (a *Verifier) parse(token string, keys []ed25519.PublicKey) (grant, error) {
	var c claims
	set := jwt.VerificationKeySet{}
	for _, k := range keys {
		set.Keys = append(set.Keys, k)
	}
	if _, err := a.parser.ParseWithClaims(token, &c,
		func(*jwt.Token) (any, error) { return set, nil }); err != nil {
		return grant{}, err
	}
	if !c.Scope.known() {
		return grant{}, fmt.Errorf("unknown scope %q", c.Scope)
	}
	if c.Audience != nil {
		return grant{}, errors.New("token is meant for an audience")
	}
	if c.EndpointID != nil && *c.EndpointID != "" {
		if _, err := uuid.Parse(*c.EndpointID); err != nil {
			return grant{}, err
		}
	}
	g := grant{scope: c.Scope}
	if c.Expiry != nil {
		seconds, err := c.Expiry.Float64()
		if err != nil || seconds < 0 || seconds > 1<<40 {
			return grant{}, errors.New("expiry is not a time")
		}
		g.expires = time.Unix(int64(seconds), 0)
	}
	return g, nil
}
