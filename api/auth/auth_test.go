package auth

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
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
		text, strings.ReplaceAll(text, "\n", ""), strings.ReplaceAll(text, "\n", `\n`),
		strings.ReplaceAll(text, "\n", " "), inJSON(t, text), inJSON(t, inJSON(t, text)),
		strings.Split(text, "\n")[1], raw.EncodeToString(pub),
		base64.StdEncoding.EncodeToString(pub), `"` + strings.Split(text, "\n")[1] + `"`,
		`{"keys":[` + jwkOf(pub) + `]}`, jwkOf(pub), inJSON(t, jwkOf(pub)),
		`{"keys":[{"kty":"RSA","n":"AQAB"},{"kty":"OKP","crv":"X25519","x":""},` +
			jwkOf(pub) + `]}`,
		"some words\n" + text + text, `"` + strings.ReplaceAll(text, "\n", "\r\n") + `"`, "\n" + text + "\n",
		`"` + text + `"`,
	} {
		got, err := ParseKeys([]byte(form))
		if err != nil || len(got) != 1 || !got[0].Equal(pub) {
			t.Errorf("%q: %v", form, err)
		}
	}
	for _, bad := range []string{
		"", `""`, "/no/such/file", "{}", `{"keys":[]}`, `{"keys":{}}`, `{`,
		strings.ReplaceAll(jwkOf(pub), `"x"`, `"d":"AA","x"`), raw.EncodeToString(pub[:31]),
		`{"kty":"OKP","crv":"Ed25519","x":"AA"}`, raw.EncodeToString(pub) + " x",
		text + strings.ReplaceAll(text, "PUBLIC", "PRIVATE"), "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----", text[:40],
		strings.ReplaceAll(text, "PUBLIC", "PRIVATE"),
	} {
		if _, err := ParseKeys([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

var raw = base64.RawURLEncoding

// inJSON is what a chart's toJson prints, in a scalar that is not quoted.
func inJSON(t *testing.T, text string) string {
	out, err := json.Marshal(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func jwkOf(key ed25519.PublicKey) string {
	return `{"kty":"OKP","crv":"Ed25519","use":"sig","alg":"EdDSA","kid":"one","x":"` +
		raw.EncodeToString(key) + `"}`
}

func TestKeysOfSeveralFilesAreOneSet(t *testing.T) {
	one, _ := newKey(t)
	two, _ := newKey(t)
	both := [][]byte{[]byte(raw.EncodeToString(one)), []byte(jwkOf(two)), []byte(jwkOf(one))}
	keys, err := MergeKeys(both)
	if err != nil || len(keys) != 2 || !keys[0].Equal(one) || !keys[1].Equal(two) {
		t.Errorf("%v, %v", keys, err)
	}
	if _, err := MergeKeys(append(both, []byte("rubbish"))); err == nil {
		t.Error("a file that is no key was passed over")
	}
	if _, err := MergeKeys(nil); err == nil {
		t.Error("no key was taken for a set")
	}
	var many [][]byte
	for range maxKeys + 1 {
		key, _ := newKey(t)
		many = append(many, []byte(raw.EncodeToString(key)))
	}
	if _, err := MergeKeys(many); err == nil {
		t.Error("a set without a bound was taken")
	}
}

// While keys rotate, both open. Afterwards the old one does not, though its tokens were
// remembered.
func TestKeysRotate(t *testing.T) {
	old, oldPrivate := newKey(t)
	fresh, freshPrivate := newKey(t)
	keys := NewKeys(old)
	a := NewVerifier(keys)
	opens := func(by ed25519.PrivateKey) bool {
		_, err := a.verify(sign(t, by, jwt.MapClaims{"scope": "admin"}))
		return err == nil
	}
	for _, step := range []struct {
		keys       []ed25519.PublicKey
		old, fresh bool
	}{
		{[]ed25519.PublicKey{old}, true, false},
		{[]ed25519.PublicKey{old, fresh}, true, true},
		{[]ed25519.PublicKey{fresh}, false, true},
	} {
		keys.Replace(step.keys)
		for range 2 { // the second time from memory
			if opens(oldPrivate) != step.old || opens(freshPrivate) != step.fresh {
				t.Errorf("with %d keys: old %v, new %v", len(step.keys), opens(oldPrivate),
					opens(freshPrivate))
			}
		}
	}
}

func FuzzParseKeys(f *testing.F) {
	pub, _ := newKey(f)
	for _, s := range []string{
		"", `"`, `"a"`, "-----BEGIN PUBLIC KEY-----", jwkOf(pub), `{"keys":[` + jwkOf(pub) + `]}`,
		raw.EncodeToString(pub), "MCowBQYDK2VwAyEARYwaNBayR+eGI0iXB4s3QxE3Nl2g1iWbr6KtLWeVD/w=",
		`"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEARYwaNBayR+eGI0iXB4s3QxE3Nl2g1iWbr6KtLWeVD/w=\n-----END PUBLIC KEY-----\n"`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		keys, err := ParseKeys(text)
		if (err == nil) != (len(keys) > 0) || len(keys) > maxKeys {
			t.Errorf("%d keys, %v", len(keys), err)
		}
		for _, k := range keys {
			again, err := ParseKeys([]byte(raw.EncodeToString(k)))
			if err != nil || !again[0].Equal(k) {
				t.Errorf("%x is not read again: %v", k, err)
			}
		}
	})
}

func TestRememberedTokenStillExpires(t *testing.T) {
	pub, priv := newKey(t)
	a := NewVerifier(NewKeys(pub))
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
	if len(a.keys.ring.Load().tokens) > keptTokens {
		t.Errorf("%d tokens are kept", len(a.keys.ring.Load().tokens))
	}
}

func TestTokensOpenWhatTheirScopeNames(t *testing.T) {
	pub, priv := newKey(t)
	_, other := newKey(t)
	v := NewVerifier(NewKeys(pub))
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
