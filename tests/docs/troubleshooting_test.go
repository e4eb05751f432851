package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/log-capturer/log_capturer/tests/harness"
)

const troubleshooting = "HYBRID_MONITOR_TROUBLESHOOTING.md"

// TestTroubleshooting: whatever /health gives as a problem, whatever the agent logs
// as a warning or an error, and whatever is given as the reason of a route, is found
// in the document by its words.
func TestTroubleshooting(t *testing.T) {
	root := harness.Root(t)
	text := harness.ReadFile(t, troubleshooting)
	document := words(text)
	quoted := strings.Join(strings.Fields(text), " ")
	found := map[string][]string{}
	err := filepath.WalkDir(filepath.Join(root, "internal"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "/lokitest/") {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		found["logged"] = append(found["logged"], logged(t, name, f)...)
		switch name {
		case "internal/app/health.go":
			found["problems"] = problemsIn(f)
		case "internal/monitors/routing.go":
			found["reasons"] = reasonsIn(f)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// One of each that there has always been: that they are looked for rightly.
	for kind, one := range map[string]string{
		"logged":   "log cannot be read; it will be tried again",
		"problems": "Docker cannot be reached",
		"reasons":  "keeps no file that can be read",
	} {
		if !slices.Contains(found[kind], one) {
			t.Errorf("%s: %q is not among %q", kind, one, found[kind])
		}
		for _, s := range found[kind] {
			// A message is quoted whole: that another one contains it is not enough.
			if !strings.Contains(document, words(s)) || kind == "logged" && !strings.Contains(quoted, "`"+s+"`") {
				t.Errorf("%s: %s says nothing of %q", kind, troubleshooting, s)
			}
		}
	}
}

// words is a text without what Markdown and line ends make of it.
func words(s string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(s, "`", "")), " ")
}

// logged gives the messages of warnings and errors in a file.
func logged(t *testing.T, name string, f *ast.File) (all []string) {
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		fun, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || !isLogger(fun.X) {
			return true
		}
		message := map[string]int{"Warn": 0, "Error": 0, "Log": 2}
		at, ok := message[fun.Sel.Name]
		if !ok || at >= len(call.Args) {
			return true
		}
		s := literals(call.Args[at])
		if len(s) != 1 {
			t.Errorf("%s: a message that is not constant", name)
		}
		all = append(all, s...)
		return true
	})
	return all
}

// isLogger reports whether an expression is one of the program's loggers.
func isLogger(x ast.Expr) bool {
	switch x := x.(type) {
	case *ast.Ident:
		return x.Name == "log" || x.Name == "logger"
	case *ast.SelectorExpr:
		return x.Sel.Name == "log" || x.Sel.Name == "Log" || x.Sel.Name == "Logger"
	case *ast.CallExpr:
		fun, ok := x.Fun.(*ast.SelectorExpr)
		return ok && fun.Sel.Name == "NewLogger"
	}
	return false
}

var verb = regexp.MustCompile(`%[a-z]`)

// problemsIn gives the constant parts of the problems of the functions that judge.
func problemsIn(f *ast.File) (all []string) {
	add := func(x ast.Node) {
		for _, s := range literals(x) {
			for _, part := range verb.Split(s, -1) {
				if part = strings.Trim(part, " :,()"); strings.Contains(part, " ") {
					all = append(all, part)
				}
			}
		}
	}
	for _, d := range f.Decls {
		fun, ok := d.(*ast.FuncDecl)
		if !ok || !strings.HasPrefix(fun.Name.Name, "judge") {
			continue
		}
		// The second argument of set and v.add is what is wrong; some of it is put
		// together before.
		parts := map[string]bool{}
		ast.Inspect(fun, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) != 3 {
				return true
			}
			switch f := call.Fun.(type) {
			case *ast.Ident:
				if f.Name != "set" {
					return true
				}
			case *ast.SelectorExpr:
				if f.Sel.Name != "add" {
					return true
				}
			}
			add(call.Args[1])
			ast.Inspect(call.Args[1], func(n ast.Node) bool {
				if id, ok := n.(*ast.Ident); ok {
					parts[id.Name] = true
				}
				return true
			})
			return true
		})
		ast.Inspect(fun, func(n ast.Node) bool {
			if assign, ok := n.(*ast.AssignStmt); ok && slices.ContainsFunc(assign.Lhs, func(x ast.Expr) bool {
				id, ok := x.(*ast.Ident)
				return ok && parts[id.Name]
			}) {
				for _, x := range assign.Rhs {
					if _, isFunc := x.(*ast.FuncLit); !isFunc {
						add(x)
					}
				}
			}
			return true
		})
	}
	return all
}

// reasonsIn gives the constants that routes are explained with.
func reasonsIn(f *ast.File) (all []string) {
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "reason") {
			for _, s := range literals(v) {
				all = append(all, strings.TrimLeft(s, ", "))
			}
		}
		return true
	})
	return all
}

// literals gives the strings in an expression.
func literals(x ast.Node) (all []string) {
	ast.Inspect(x, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil {
				all = append(all, s)
			}
		}
		return true
	})
	return all
}
