package storagecontroller

import (
	"errors"
	"log/slog"
	"testing"
)

// Others reach this replica at the address it tells, to which they append paths.
func TestAddressForPeers(t *testing.T) {
	members := []string{
		"--dev", "--members=a=127.0.0.1:1,b=127.0.0.1:2,c=127.0.0.1:3", "--server-id=a",
	}
	for _, tt := range []struct {
		args []string
		want string
		bad  bool
	}{
		{
			[]string{"--listen=127.0.0.1:1", "--address-for-peers=http://host:1"}, "http://host:1/",
			false,
		},
		{
			[]string{"--listen=0.0.0.0:1", "--address-for-peers=https://host:1/"},
			"https://host:1/", false,
		},
		{[]string{"--listen=127.0.0.1:1"}, "", false},
		{[]string{"--listen=0.0.0.0:1"}, "", true},
		{[]string{"--listen-https=[::]:1"}, "", true},
		{[]string{"--listen=:1"}, "", true},
		{[]string{"--listen=127.0.0.1:1", "--address-for-peers=host"}, "", true},
	} {
		cfg, err := mustParse(t, append(tt.args, members...)...).
			config(slog.New(slog.DiscardHandler))
		if tt.bad {
			if !errors.Is(err, errUsage) {
				t.Errorf("%v: %v", tt.args, err)
			}
			continue
		}
		if err != nil || cfg.HTTP.Address != tt.want {
			t.Errorf("%v: %q, %v", tt.args, cfg.HTTP.Address, err)
		}
	}
	if _, err := mustParse(t, "--dev", "--listen=0.0.0.0:1").
		config(slog.New(slog.DiscardHandler)); err != nil {
		t.Errorf("alone: %v", err)
	}
}
