package release

import (
	"archive/tar"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// nobody is the user of the image. The chart sets the same.
const nobody = 65532

// dataDir is the only place of the image that is written.
const dataDir = "var/lib/quorate"

// Image writes an OCI layout with an image for each architecture. An image has the two
// programs and nothing else, so that its root can be read-only.
func (s Source) Image(out string) error {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range Arches {
		image, err := s.imageOf(out, arch)
		if err != nil {
			return err
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image,
			Descriptor: v1.Descriptor{
				Platform: &v1.Platform{OS: "linux", Architecture: arch},
			},
		})
	}
	annotated := mutate.Annotations(index, s.labels()).(v1.ImageIndex)
	_, err := layout.Write(filepath.Join(out, "image"), annotated)
	return err
}

func (s Source) labels() map[string]string {
	return map[string]string{
		"org.opencontainers.image.title":       "quorate",
		"org.opencontainers.image.description": "A storage controller for Neon, replicated with Raft",
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.version":     s.Version,
		"org.opencontainers.image.revision":    s.Commit,
		"org.opencontainers.image.created":     s.Date.Format(time.RFC3339),
	}
}

func (s Source) imageOf(out, arch string) (v1.Image, error) {
	content, err := s.layer(out, arch)
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	}, tarball.WithMediaType(types.OCILayer))
	if err != nil {
		return nil, err
	}
	image, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1),
		mutate.Addendum{
			Layer:   layer,
			History: v1.History{Created: v1.Time{Time: s.Date}, CreatedBy: "make artifacts"},
		})
	if err != nil {
		return nil, err
	}
	file, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Created = "linux", arch, v1.Time{Time: s.Date}
	file.Config = v1.Config{
		User:       "65532:65532",
		Entrypoint: []string{"/usr/local/bin/storage_controller"},
		Env:        []string{"PATH=/usr/local/bin"},
		WorkingDir: "/" + dataDir,
		Volumes:    map[string]struct{}{"/" + dataDir: {}},
		StopSignal: "SIGTERM",
		Labels:     s.labels(),
	}
	return mutate.ConfigFile(image, file)
}

// layer is the file system of an image.
func (s Source) layer(out, arch string) ([]byte, error) {
	var content bytes.Buffer
	w := tar.NewWriter(&content)
	put := func(h tar.Header, body []byte) error {
		h.ModTime, h.Size, h.Format = s.Date, int64(len(body)), tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			return err
		}
		_, err := w.Write(body)
		return err
	}
	for _, dir := range []string{"etc/", "usr/", "usr/local/", "usr/local/bin/", "var/", "var/lib/"} {
		if err := put(tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}, nil); err != nil {
			return nil, err
		}
	}
	if err := put(tar.Header{
		Name: dataDir + "/", Typeflag: tar.TypeDir, Mode: 0o700, Uid: nobody, Gid: nobody,
	}, nil); err != nil {
		return nil, err
	}
	if err := put(tar.Header{Name: "etc/passwd", Mode: 0o644},
		[]byte("quorate:x:65532:65532:quorate:/"+dataDir+":/sbin/nologin\n")); err != nil {
		return nil, err
	}
	for _, command := range Commands {
		body, err := os.ReadFile(Binary(out, arch, command))
		if err != nil {
			return nil, err
		}
		if err := put(tar.Header{Name: "usr/local/bin/" + command, Mode: 0o755}, body); err != nil {
			return nil, err
		}
	}
	return content.Bytes(), w.Close()
}
