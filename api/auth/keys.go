package auth

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
)

// maxKeys bounds the keys of one set. A forged token costs a signature check for each.
const maxKeys = 64

// Keys are the public keys of those who issue tokens. They can be replaced at any time.
// Nothing that was verified with the keys before counts afterwards. Many may use them.
type Keys struct{ ring atomic.Pointer[ring] }

// NewKeys makes a set of keys.
func NewKeys(keys ...ed25519.PublicKey) *Keys {
	k := &Keys{}
	k.Replace(keys)
	return k
}

// Replace makes these the keys.
func (k *Keys) Replace(keys []ed25519.PublicKey) { k.ring.Store(newRing(keys)) }

// ParseKeys reads all public keys of a text, at least one. It takes PEM with real line
// ends, with the two characters \n in their place, or with none; a bare key in base64, raw
// or as the body of PEM; and a set of JSON web keys, or one. Launchers wrap each of them
// into literal double quotes, with or without the escapes of JSON.
func ParseKeys(text []byte) ([]ed25519.PublicKey, error) {
	text = unquote(text)
	var keys []ed25519.PublicKey
	var err error
	switch {
	case len(text) == 0:
		return nil, errors.New("public key: it is empty")
	case bytes.Contains(text, []byte("-----BEGIN ")):
		keys, err = parsePEM(string(text))
	case text[0] == '{':
		keys, err = parseJWKS(text)
	default:
		keys, err = parseBare(string(text))
	}
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	return distinct(keys)
}

// MergeKeys reads the keys of several texts, such as the files of a directory.
func MergeKeys(texts [][]byte) ([]ed25519.PublicKey, error) {
	var all []ed25519.PublicKey
	for _, text := range texts {
		keys, err := ParseKeys(text)
		if err != nil {
			return nil, err
		}
		all = append(all, keys...)
	}
	return distinct(all)
}

// distinct refuses sets that are empty or too large.
func distinct(keys []ed25519.PublicKey) ([]ed25519.PublicKey, error) {
	var all []ed25519.PublicKey
	for _, k := range keys {
		if !slices.ContainsFunc(all, func(o ed25519.PublicKey) bool { return o.Equal(k) }) {
			all = append(all, k)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("public key: no Ed25519 key in it, so every token would be refused")
	}
	if len(all) > maxKeys {
		return nil, fmt.Errorf("public key: %d keys, more than %d", len(all), maxKeys)
	}
	return all, nil
}

// unquote takes away the quotes around a text. Inside may be a string of JSON, as charts
// print it, or the text itself.
func unquote(text []byte) []byte {
	text = bytes.TrimSpace(text)
	if len(text) < 2 || text[0] != '"' || text[len(text)-1] != '"' {
		return bytes.Trim(text, `"`)
	}
	var inside string
	if json.Unmarshal(text, &inside) != nil {
		inside = string(text[1 : len(text)-1])
	}
	return bytes.TrimSpace([]byte(inside))
}

// parsePEM reads all blocks. It is wider than pem.Decode, which wants line ends.
func parsePEM(text string) (keys []ed25519.PublicKey, err error) {
	const begin, end, dashes = "-----BEGIN ", "-----END ", "-----"
	for {
		_, rest, found := strings.Cut(text, begin)
		if !found {
			return keys, nil
		}
		label, rest, found := strings.Cut(rest, dashes)
		if !found || label != "PUBLIC KEY" {
			return nil, fmt.Errorf("a PEM block of type %.40q, not PUBLIC KEY", label)
		}
		body, rest, found := strings.Cut(rest, end+label+dashes)
		if !found {
			return nil, errors.New("a PEM block does not end")
		}
		der, err := base64.StdEncoding.DecodeString(unbroken.Replace(body))
		if err != nil {
			return nil, fmt.Errorf("PEM block: %w", err)
		}
		key, err := parseDER(der)
		if err != nil {
			return nil, err
		}
		keys, text = append(keys, key), rest
	}
}

// unbroken takes line ends, real ones and their escapes, out of base64, which has no
// backslash.
var unbroken = strings.NewReplacer(`\r`, "", `\n`, "", "\r", "", "\n", "", " ", "", "\t", "")

func parseDER(der []byte) (ed25519.PublicKey, error) {
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, err
	}
	ed, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("want Ed25519, have %T", key)
	}
	return ed, nil
}

// parseBare reads keys in base64, one on each line.
func parseBare(text string) (keys []ed25519.PublicKey, err error) {
	for _, word := range strings.Fields(strings.ReplaceAll(text, `\n`, "\n")) {
		var key ed25519.PublicKey
		raw, err := decode(word)
		if key = raw; err == nil && len(raw) != ed25519.PublicKeySize {
			key, err = parseDER(raw)
		}
		if err != nil {
			return nil, fmt.Errorf("it is neither PEM nor a key in base64 nor a set of JSON web "+
				"keys, and no file or directory has that name (%w)", err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// decode reads either alphabet of base64, with and without padding.
func decode(text string) ([]byte, error) {
	text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	return base64.RawStdEncoding.Strict().DecodeString(text)
}

// jwk is a JSON web key, as far as it matters here.
type jwk struct {
	Type    string          `json:"kty"`
	Curve   string          `json:"crv"`
	X       string          `json:"x"`
	Use     string          `json:"use"`
	Alg     string          `json:"alg"`
	Private json.RawMessage `json:"d"`
}

// parseJWKS reads a set of JSON web keys, or one. Keys of other kinds, or for other uses, are
// passed over, as readers of such a set should.
func parseJWKS(text []byte) (keys []ed25519.PublicKey, err error) {
	var set struct {
		jwk
		Keys []jwk `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, fmt.Errorf("JSON web keys: %w", err)
	}
	if set.Keys == nil {
		set.Keys = []jwk{set.jwk}
	}
	for _, k := range set.Keys {
		switch {
		case k.Type != "OKP" || k.Curve != "Ed25519" || k.Use != "" && k.Use != "sig",
			k.Alg != "" && k.Alg != "EdDSA" && k.Alg != "Ed25519":
			continue
		case k.Private != nil:
			return nil, errors.New("JSON web keys: a private key, which belongs to the issuer only")
		}
		raw, err := base64.RawURLEncoding.Strict().DecodeString(k.X)
		if err != nil || len(raw) != ed25519.PublicKeySize {
			return nil, errors.New("JSON web keys: an x that is no Ed25519 key")
		}
		keys = append(keys, raw)
	}
	return keys, nil
}
