package api

import (
	"crypto/ed25519"
	"crypto/rand"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

func newKey(t testing.TB) (ed25519.PublicKey, ed25519.PrivateKey) {
	t.Helper()
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return pub, priv
}

func sign(t testing.TB, key ed25519.PrivateKey, c jwt.MapClaims) string {
	t.Helper()
	s, err := jwt.NewWithClaims(jwt.SigningMethodEdDSA, c).SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestTokensAreJudgedAsTheExistingControllerDoes(t *testing.T) {
	pub, priv := newKey(t)
	_, other := newKey(t)
	w := newWorld(t, setup{key: pub})
	now := time.Now().Unix()
	admin := func(extra jwt.MapClaims) string {
		c := jwt.MapClaims{"scope": "admin"}
		for k, v := range extra {
			c[k] = v
		}
		return "Bearer " + sign(t, priv, c)
	}
	hs, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"scope": "admin"}).
		SignedString([]byte(pub))
	if err != nil {
		t.Fatal(err)
	}
	none, err := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{"scope": "admin"}).
		SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	const (
		missing   = `{"msg":"Unauthorized: missing authorization header"}`
		malformed = `{"msg":"Unauthorized: malformed authorization header"}`
		forbidden = `{"msg":"Forbidden: JWT authentication error"}`
	)
	for name, c := range map[string]struct {
		header string
		status int
		want   string
	}{
		"none":       {"", 401, missing},
		"no space":   {"Bearer", 401, malformed},
		"lower case": {"bearer " + admin(nil)[7:], 401, malformed},
		"other kind": {"Basic xyz", 401, malformed},
		"two spaces": {"Bearer  " + admin(nil)[7:], 403, forbidden},
		"garbage":    {"Bearer x.y.z", 403, forbidden},
		"empty":      {"Bearer ", 401, malformed},
		"good":       {admin(nil), 200, "[]"},
		"other key": {
			"Bearer " + sign(t, other, jwt.MapClaims{"scope": "admin"}), 403, forbidden,
		},
		"key as secret":    {"Bearer " + hs, 403, forbidden},
		"unsigned":         {"Bearer " + none, 403, forbidden},
		"cut":              {admin(nil)[:60], 403, forbidden},
		"not expired":      {admin(jwt.MapClaims{"exp": now + 5}), 200, "[]"},
		"within leeway":    {admin(jwt.MapClaims{"exp": now - 50}), 200, "[]"},
		"expired":          {admin(jwt.MapClaims{"exp": now - 70}), 403, forbidden},
		"expiry is a word": {admin(jwt.MapClaims{"exp": "soon"}), 403, forbidden},
		"not before, ignored": {
			admin(jwt.MapClaims{"nbf": now + 1000, "iat": now + 1000}), 200, "[]",
		},
		"audience":     {admin(jwt.MapClaims{"aud": "us"}), 403, forbidden},
		"audiences":    {admin(jwt.MapClaims{"aud": []string{}}), 403, forbidden},
		"tenant":       {admin(jwt.MapClaims{"tenant_id": tenantA}), 200, "[]"},
		"bad tenant":   {admin(jwt.MapClaims{"tenant_id": "x"}), 403, forbidden},
		"no endpoint":  {admin(jwt.MapClaims{"endpoint_id": ""}), 200, "[]"},
		"bad endpoint": {admin(jwt.MapClaims{"endpoint_id": "x"}), 403, forbidden},
		"endpoint": {
			admin(jwt.MapClaims{"endpoint_id": "6ba7b810-9dad-11d1-80b4-00c04fd430c8", "more": 1}),
			200, "[]",
		},
		"no scope":      {"Bearer " + sign(t, priv, jwt.MapClaims{}), 403, forbidden},
		"unknown scope": {"Bearer " + sign(t, priv, jwt.MapClaims{"scope": "god"}), 403, forbidden},
		"wrong scope": {
			"Bearer " + sign(t, priv, jwt.MapClaims{"scope": "infra"}), 403, forbidden,
		},
	} {
		for range 2 { // the second time from memory
			var header []string
			if c.header != "" {
				header = []string{"Authorization", c.header}
			}
			g := w.replicas[0].do("GET", "/control/v1/tenant", "", header...)
			if g.status != c.status || g.body != c.want {
				t.Errorf("%s: %d %s", name, g.status, g.body)
			}
		}
	}
}
