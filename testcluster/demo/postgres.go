package demo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"

	"quorate/api/neon"
)

// install is a Postgres installation as pageservers look for it: a directory
// with v14 to v17, each with bin and lib. And it is the user that runs programs:
// initdb refuses to be root.
type install struct {
	dir     string
	version neon.PgVersion
	user    *syscall.Credential // nil: ours
}

// versions are the ones pageservers know, best first.
var versions = []neon.PgVersion{17, 16, 15, 14}

// findInstall looks at POSTGRES_DISTRIB_DIR, or, without it, at what usually lies
// beside Neon's binaries. Other layouts than the pageservers' own, such as one
// installation alone or Debian's, are linked into dir.
func findInstall(given, neonBin, dir string) (install, error) {
	candidates := []string{given}
	if given == "" {
		candidates = []string{filepath.Join(neonBin, "pg_install"),
			filepath.Join(neonBin, "..", "pg_install"),
			filepath.Join(neonBin, "..", "..", "pg_install"), "/usr/local"}
	}
	for _, root := range candidates {
		root, err := filepath.Abs(root)
		if err != nil {
			return install{}, err
		}
		for _, v := range versions {
			name := fmt.Sprintf("v%d", v)
			if hasInitdb(filepath.Join(root, name)) {
				return withUser(install{dir: root, version: v})
			}
			if debian := filepath.Join(root, strconv.Itoa(int(v))); hasInitdb(debian) {
				return linked(debian, v, dir)
			}
		}
		if hasInitdb(root) {
			v, err := versionOf(filepath.Join(root, "bin", "initdb"))
			if err != nil {
				return install{}, err
			}
			return linked(root, v, dir)
		}
	}
	return install{}, errors.New(
		"no initdb found: set POSTGRES_DISTRIB_DIR to the directory with v14, v15, v16 or v17 in it")
}

func hasInitdb(dir string) bool {
	info, err := os.Stat(filepath.Join(dir, "bin", "initdb"))
	return err == nil && info.Mode()&0o111 != 0
}

var versionText = regexp.MustCompile(`\(PostgreSQL\) (\d+)`)

func versionOf(initdb string) (neon.PgVersion, error) {
	out, err := exec.Command(initdb, "--version").Output()
	if err != nil {
		return 0, fmt.Errorf("%s --version: %w", initdb, err)
	}
	m := versionText.FindSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("%s --version says %q", initdb, out)
	}
	v, err := strconv.Atoi(string(m[1]))
	return neon.PgVersion(v), err
}

func linked(root string, v neon.PgVersion, dir string) (install, error) {
	home := filepath.Join(dir, "pg_install")
	if err := os.MkdirAll(home, 0o755); err != nil {
		return install{}, err
	}
	if err := os.Symlink(root, filepath.Join(home, fmt.Sprintf("v%d", v))); err != nil &&
		!errors.Is(err, fs.ErrExist) {
		return install{}, err
	}
	return withUser(install{dir: home, version: v})
}

// withUser picks somebody else to run programs when we are root.
func withUser(i install) (install, error) {
	if os.Geteuid() != 0 {
		return i, nil
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		return i, fmt.Errorf("initdb does not run as root, and there is no other user: %w", err)
	}
	uid, err := strconv.ParseUint(nobody.Uid, 10, 32)
	if err != nil {
		return i, err
	}
	gid, err := strconv.ParseUint(nobody.Gid, 10, 32)
	i.user = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return i, err
}

func (i install) libraries() string {
	return filepath.Join(i.dir, fmt.Sprintf("v%d", i.version), "lib")
}

// own makes directories that the programs may use.
func (i install) own(dirs ...string) error {
	for _, d := range dirs {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
		if err := os.Chmod(d, 0o755); err != nil {
			return err
		}
		if i.user == nil {
			continue
		}
		if err := os.Chown(d, int(i.user.Uid), int(i.user.Gid)); err != nil {
			return err
		}
	}
	return nil
}
