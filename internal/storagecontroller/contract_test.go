package storagecontroller

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"quorate/internal/app"
	"quorate/internal/contract"
)

func publicKeyPEM(t *testing.T) string {
	pub, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// configOf is what a replica is made with, given the flags.
func configOf(t *testing.T, args ...string) app.Config {
	t.Helper()
	if !slices.ContainsFunc(args, func(
		a string,
	) bool {
		return strings.HasPrefix(a, "--listen") || strings.HasPrefix(a, "-l")
	}) {
		args = append(args, "--listen=127.0.0.1:1")
	}
	cfg, err := mustParse(t, args...).config(slog.Default())
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	return cfg
}

// TestContractFlags tries every flag that does not need a start, in both spellings.
func TestContractFlags(t *testing.T) {
	root := newRoot(Seams{})
	root.InitDefaultHelpFlag()
	for _, row := range contract.Rows(contract.Flag) {
		t.Run(row.Name, func(t *testing.T) {
			name := strings.TrimLeft(row.Name, "-")
			fl := root.Flags().Lookup(name)
			if len(name) == 1 {
				fl = root.Flags().ShorthandLookup(name)
			}
			if fl == nil {
				t.Fatal("not a flag")
			}
			checkDefault(t, row, fl)
			if row.Cell("effect") == "start" {
				return // has a test of its own
			}
			sample := row.Cell("sample")
			if sample == "PEM" {
				sample = publicKeyPEM(t)
			}
			spellings := [][]string{{row.Name, sample}, {row.Name + "=" + sample}}
			if row.Cell("kind") == "switch" {
				spellings = [][]string{{row.Name}}
				if got := configOf(t, row.Name+"=false"); !reflect.DeepEqual(got, configOf(t)) {
					t.Error("false is not the default")
				}
			}
			for _, args := range spellings {
				got := configOf(t, args...)
				if row.Cell("effect") == "config" && reflect.DeepEqual(got, configOf(t)) {
					t.Errorf("%q changes nothing", args)
				}
			}
			row.Tick(t)
		})
	}
}

func checkDefault(t *testing.T, row contract.Row, fl *pflag.Flag) {
	t.Helper()
	want := []string{row.Cell("default")}
	if want[0] == "-" {
		want = []string{"", "0", "0s"}
	}
	if !slices.Contains(want, fl.DefValue) {
		t.Errorf("its default is %q, want %q", fl.DefValue, want)
	}
	if takesNone := fl.NoOptDefVal != ""; takesNone != (row.Cell("kind") == "switch") {
		t.Errorf("it is given without a value: %v", takesNone)
	}
}

// TestContractEnvironment sets the variables that stand in for flags.
func TestContractEnvironment(t *testing.T) {
	for _, row := range contract.Rows(contract.Environment) {
		if row.Cell("effect") != "flag" {
			continue
		}
		t.Run(row.Name, func(t *testing.T) {
			value := func(args ...string) string {
				fs := pflag.NewFlagSet("test", pflag.ContinueOnError)
				(&flags{}).register(fs)
				if err := fs.Parse(args); err != nil {
					t.Fatal(err)
				}
				return fs.Lookup(strings.TrimPrefix(row.Cell("flag"), "--")).Value.String()
			}
			t.Setenv(row.Name, "from the environment")
			if got := value(); got != "from the environment" {
				t.Errorf("the flag is %q", got)
			}
			if got := value(row.Cell("flag"), "given"); got != "given" {
				t.Errorf("the environment wins: %q", got)
			}
			row.Tick(t)
		})
	}
}
