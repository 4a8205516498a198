package release

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/goreleaser/nfpm/v2"
	_ "github.com/goreleaser/nfpm/v2/deb" // registers the format
	"github.com/goreleaser/nfpm/v2/files"
	_ "github.com/goreleaser/nfpm/v2/rpm" // registers the format
)

// Formats are those of the packages.
var Formats = []string{"deb", "rpm"}

// Packages writes the packages of one architecture.
func (s Source) Packages(out, arch string) error {
	for _, format := range Formats {
		if err := s.pack(out, arch, format); err != nil {
			return err
		}
	}
	return nil
}

func (s Source) pack(out, arch, format string) error {
	install := filepath.Join(s.Dir, "internal/release/install")
	info := nfpm.WithDefaults(&nfpm.Info{
		Name: "quorate", Arch: arch, Platform: "linux", Version: s.Version, MTime: s.Date,
		Section: "database", Maintainer: "Quorate <quorate@localhost>", License: "Apache-2.0",
		Description: "A storage controller for Neon, replicated with Raft",
		Overridables: nfpm.Overridables{
			Contents: s.contents(out, arch, install),
			Scripts: nfpm.Scripts{
				PostInstall: filepath.Join(install, "postinst"),
				PreRemove:   filepath.Join(install, "prerm"),
			},
		},
	})
	packager, err := nfpm.Get(format)
	if err != nil {
		return err
	}
	info.Target = filepath.Join(out, packager.ConventionalFileName(info))
	f, err := os.Create(info.Target)
	if err != nil {
		return err
	}
	return errors.Join(packager.Package(info, f), f.Close())
}

// contents are the files of a package. What an operator writes is kept by upgrades.
func (s Source) contents(out, arch, install string) files.Contents {
	file := func(from, to, kind string, mode os.FileMode) *files.Content {
		return &files.Content{
			Source: from, Destination: to, Type: kind,
			FileInfo: &files.ContentFileInfo{
				Mode: mode, MTime: s.Date, Owner: "root", Group: "root",
			},
		}
	}
	all := files.Contents{
		file(filepath.Join(install, "storage_controller.service"),
			"/usr/lib/systemd/system/storage_controller.service", "", 0o644),
		file(filepath.Join(install, "sysusers.conf"), "/usr/lib/sysusers.d/quorate.conf", "", 0o644),
		file(filepath.Join(s.Dir, "LICENSE"), "/usr/share/doc/quorate/copyright", "", 0o644),
		file("", "/etc/quorate", "dir", 0o755),
	}
	for _, command := range Commands {
		all = append(all, file(Binary(out, arch, command), "/usr/bin/"+command, "", 0o755))
	}
	for _, name := range []string{"serving", "cluster", "peers"} {
		all = append(all, file(filepath.Join(install, name), "/etc/quorate/"+name,
			"config|noreplace", 0o644))
	}
	return append(all, file(filepath.Join(install, "secrets"), "/etc/quorate/secrets",
		"config|noreplace", 0o600)) // read by systemd, as root
}
