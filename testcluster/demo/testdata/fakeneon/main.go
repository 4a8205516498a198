// Command fakeneon stands in for Neon's programs in a test of how they are
// launched: called pageserver it serves a simulated one according to the files in
// its directory, called storage_broker it only answers.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"quorate/api/neon"
	"quorate/testcluster/simpageserver"
)

func main() {
	var err error
	if filepath.Base(os.Args[0]) == "storage_broker" {
		addr, ok := strings.CutPrefix(os.Args[1], "--listen-addr=")
		if !ok {
			err = fmt.Errorf("storage_broker does not know %q", os.Args[1])
		} else {
			err = http.ListenAndServe(addr,
				http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		}
	} else {
		err = pageserver(os.Args[2])
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

var setting = regexp.MustCompile(`(?m)^(\w+) = (?:'([^']*)'|(.*))$`)

func settings(file string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	all := make(map[string]string)
	for _, m := range setting.FindAllStringSubmatch(string(text), -1) {
		all[m[1]] = m[2] + m[3]
	}
	return all, nil
}

func pageserver(dir string) error {
	conf, err := settings(filepath.Join(dir, "pageserver.toml"))
	if err != nil {
		return err
	}
	identity, err := settings(filepath.Join(dir, "identity.toml"))
	if err != nil {
		return err
	}
	var meta struct {
		Zone string `json:"availability_zone_id"`
		Host string `json:"http_host"`
		Port int    `json:"http_port"`
	}
	text, err := os.ReadFile(filepath.Join(dir, "metadata.json"))
	if err == nil {
		err = json.Unmarshal(text, &meta)
	}
	if err != nil {
		return err
	}
	addr := conf["listen_http_addr"]
	if net.JoinHostPort(meta.Host, strconv.Itoa(meta.Port)) != addr {
		return fmt.Errorf("metadata.json says %s:%d, pageserver.toml %s", meta.Host, meta.Port,
			addr)
	}
	id, err := neon.ParseNodeID(identity["id"])
	if err != nil {
		return err
	}
	node, err := simpageserver.NewFleet(simpageserver.Options{}).AddNode(simpageserver.NodeOptions{
		ID: id, AZ: neon.MakeAZ(meta.Zone), Upcalls: []string{conf["control_plane_api"]},
		Register: true,
		Listen:   func() (net.Listener, error) { return net.Listen("tcp", addr) },
	})
	if err != nil {
		return err
	}
	if err := node.Start(context.Background()); err != nil {
		return err
	}
	select {}
}
