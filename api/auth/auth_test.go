package auth

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"quorate/api/neon"
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

func TestPublicKeyIsReadAsLaunchersPassIt(t *testing.T) {
	pub, _ := newKey(t)
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	for _, form := range []string{
		text, `"` + strings.ReplaceAll(text, "\n", "\r\n") + `"`, "\n" + text + "\n",
		`"` + text + `"`,
	} {
		got, err := ParsePublicKey(form)
		if err != nil || !got.Equal(pub) {
			t.Errorf("%q: %v", form, err)
		}
	}
	for _, bad := range []string{
		"", `""`, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", text[:40],
		strings.ReplaceAll(text, "PUBLIC", "PRIVATE"),
	} {
		if _, err := ParsePublicKey(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestRememberedTokenStillExpires(t *testing.T) {
	pub, priv := newKey(t)
	a := NewVerifier(pub)
	token := sign(t, priv, jwt.MapClaims{"scope": "admin", "exp": time.Now().Unix() - 59})
	g, err := a.verify(token)
	if err != nil || g.expires.IsZero() {
		t.Fatal(err)
	}
	for range keptTokens + 10 {
		if _, err := a.verify(token); err != nil {
			t.Fatal(err)
		}
		token += "x" // not a token, not remembered
		if _, err := a.verify(token); err == nil {
			t.Fatal("garbage was taken")
		}
		token = token[:len(token)-1]
	}
	if len(a.tokens) > keptTokens {
		t.Errorf("%d tokens are kept", len(a.tokens))
	}
}

func TestTokensOpenWhatTheirScopeNames(t *testing.T) {
	pub, priv := newKey(t)
	_, other := newKey(t)
	v := NewVerifier(pub)
	token := func(c jwt.MapClaims) string { return "Bearer " + sign(t, priv, c) }
	admin := token(jwt.MapClaims{"scope": "admin"})
	for _, c := range []struct {
		name, header string
		want         Scope
		code         neon.Code // empty: admitted
	}{
		{"no token", "", Any, neon.Unauthorized},
		{"no kind", admin[7:], Any, neon.Unauthorized},
		{"another kind", "Basic " + admin[7:], Any, neon.Unauthorized},
		{"an admin", admin, Infra, ""},
		{"an admin again", admin, Peer, ""},
		{"infra", token(jwt.MapClaims{"scope": "infra"}), Infra, ""},
		{"infra as admin", token(jwt.MapClaims{"scope": "infra"}), Admin, neon.Forbidden},
		{"a scope that admits nothing", token(jwt.MapClaims{"scope": "tenant"}), Any, ""},
		{"no scope", token(jwt.MapClaims{}), Any, neon.Forbidden},
		{"an unknown scope", token(jwt.MapClaims{"scope": "god"}), Any, neon.Forbidden},
		{
			"another key", "Bearer " + sign(t, other, jwt.MapClaims{"scope": "admin"}), Any,
			neon.Forbidden,
		},
		{
			"an audience", token(jwt.MapClaims{"scope": "admin", "aud": "us"}), Any,
			neon.Forbidden,
		},
		{
			"an endpoint that is none",
			token(jwt.MapClaims{"scope": "admin", "endpoint_id": "x"}), Any, neon.Forbidden,
		},
		{
			"an expiry that is no time", token(jwt.MapClaims{"scope": "admin", "exp": -1}), Any,
			neon.Forbidden,
		},
		{
			"an expired token",
			token(jwt.MapClaims{"scope": "admin", "exp": time.Now().Unix() - 70}), Any,
			neon.Forbidden,
		},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		if c.header != "" {
			r.Header.Set("Authorization", c.header)
		}
		err := v.Check(r, c.want)
		if (err == nil) != (c.code == "") || err != nil && neon.CodeOf(err) != c.code {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
