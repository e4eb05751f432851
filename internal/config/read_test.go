package config

import (
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// TestEveryFieldIsRead: the agent reads each field of the configuration somewhere; a
// key that is decoded and then forgotten would be found by no other test here. What
// doctor, dlq and other commands read does not count. Whether the value does what it
// should is for the tests of those it is handed to.
func TestEveryFieldIsRead(t *testing.T) {
	c := newChecker(t)
	read := make(map[string]bool) // "Type.Field", and "Type.Method" of those called
	for _, file := range []string{"../app/*.go", "../../cmd/log_capturer/*.go"} {
		files := c.parse(t, file)
		c.selected(t, files, func(file string, _ *ast.FuncDecl) bool {
			return filepath.Base(filepath.Dir(file)) == "app" || filepath.Base(file) == "main.go"
		}, read)
	}
	// What the configuration's own methods read for them.
	c.selected(t, c.parse(t, "*.go"), func(_ string, f *ast.FuncDecl) bool {
		return f != nil && f.Recv != nil && read[receiver(f)+"."+f.Name.Name]
	}, read)

	var walk func(path string, typ reflect.Type)
	walk = func(path string, typ reflect.Type) {
		for i := range typ.NumField() {
			f := typ.Field(i)
			if !read[typ.Name()+"."+f.Name] {
				t.Errorf("no part of the agent reads %s%s", path, f.Name)
			} else if f.Type.Kind() == reflect.Struct {
				walk(path+f.Name+".", f.Type)
			}
		}
	}
	walk("", reflect.TypeFor[Config]())
}

// checker type-checks packages of the module, with what the go command has built of
// those that they import.
type checker struct {
	fset *token.FileSet
	imp  types.Importer
}

func newChecker(t *testing.T) *checker {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-buildvcs=false", "-export", "-deps", "-f", "{{.ImportPath}}={{.Export}}", "../../cmd/log_capturer")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	built := make(map[string]string)
	for l := range strings.Lines(string(out)) {
		path, file, _ := strings.Cut(strings.TrimSpace(l), "=")
		built[path] = file
	}
	c := &checker{fset: token.NewFileSet()}
	c.imp = importer.ForCompiler(c.fset, "gc", func(path string) (io.ReadCloser, error) {
		if built[path] == "" {
			return nil, errors.New("not built: " + path)
		}
		return os.Open(built[path])
	})
	return c
}

// parse reads a package's files, without tests.
func (c *checker) parse(t *testing.T, pattern string) (files []*ast.File) {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(c.fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// selected adds to read which fields and methods of the configuration's types a
// package selects, in those of its declarations that count; f is nil for what is no
// function.
func (c *checker) selected(t *testing.T, files []*ast.File, counts func(file string, f *ast.FuncDecl) bool, read map[string]bool) {
	t.Helper()
	info := types.Info{Selections: make(map[*ast.SelectorExpr]*types.Selection)}
	conf := types.Config{Importer: c.imp}
	if _, err := conf.Check(files[0].Name.Name, c.fset, files, &info); err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		name := c.fset.Position(file.Pos()).Filename
		for _, d := range file.Decls {
			f, _ := d.(*ast.FuncDecl)
			if !counts(name, f) {
				continue
			}
			ast.Inspect(d, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok && info.Selections[sel] != nil {
					read[ownName(info.Selections[sel])] = true
				}
				return true
			})
		}
	}
}

// ownName gives what is selected of a type of this package as Type.Name.
func ownName(s *types.Selection) string {
	typ := s.Recv()
	if p, ok := typ.(*types.Pointer); ok {
		typ = p.Elem()
	}
	named, ok := typ.(*types.Named)
	if !ok || s.Obj().Pkg() == nil || s.Obj().Pkg().Name() != "config" {
		return ""
	}
	return fmt.Sprintf("%s.%s", named.Obj().Name(), s.Obj().Name())
}

// receiver is the name of a method's type.
func receiver(f *ast.FuncDecl) string {
	typ := f.Recv.List[0].Type
	if p, ok := typ.(*ast.StarExpr); ok {
		typ = p.X
	}
	name, ok := typ.(*ast.Ident)
	if !ok {
		return ""
	}
	return name.Name
}
