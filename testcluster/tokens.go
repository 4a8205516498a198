package testcluster

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"

	"github.com/golang-jwt/jwt/v5"
)

// keys signs the tokens of one cluster.
type keys struct {
	private ed25519.PrivateKey
	public  ed25519.PublicKey
	pem     string
}

func newKeys() (*keys, error) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	return &keys{private: private, public: public, pem: string(text)}, nil
}

// Token signs a token of the cluster for a scope, such as `admin` or
// `pageserverapi`. It is empty without Auth.
func (k *keys) Token(scope string) string {
	if k == nil {
		return ""
	}
	text, err := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{"scope": scope}).
		SignedString(k.private)
	if err != nil {
		panic(err) // an Ed25519 key signs everything
	}
	return text
}

// presents returns Token, signed once.
func (k *keys) presents(scope string) func() string {
	text := k.Token(scope)
	return func() string { return text }
}

// allows reports whether a token has one of the scopes.
func (k *keys) allows(token string, scopes ...string) bool {
	parsed, err := jwt.Parse(token, func(*jwt.Token) (any, error) { return k.public, nil },
		jwt.WithValidMethods([]string{"EdDSA"}))
	if err != nil {
		return false
	}
	claims, ok := parsed.Claims.(jwt.MapClaims)
	if !ok {
		return false
	}
	for _, s := range scopes {
		if claims["scope"] == s {
			return true
		}
	}
	return false
}

// PublicKey is the PEM text of the key that tokens are verified with. It is an
// error without Auth.
func (k *keys) PublicKey() (string, error) {
	if k == nil {
		return "", errors.New("the cluster has no keys")
	}
	return k.pem, nil
}
