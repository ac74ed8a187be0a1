package main

import (
	"html/template"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// newPages serves what people see: its own templates, or those of the same names in dirs.
func newPages(dirs []string) (http.Handler, error) {
	templates := template.Must(template.New("homepage.html").Parse("<p>Home page of the " + standIn + "</p>\n"))
	template.Must(templates.New("after_logout.html").Parse("<p>Signed out, says the " + standIn + "</p>\n"))
	for _, dir := range dirs {
		files, err := os.ReadDir(dir)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			if f.IsDir() || !strings.HasSuffix(f.Name(), ".html") {
				continue
			}
			if _, err := templates.ParseFiles(filepath.Join(dir, f.Name())); err != nil {
				return nil, err
			}
		}
	}
	mux := http.NewServeMux()
	for _, name := range []string{"homepage", "after_logout"} {
		mux.HandleFunc("GET /site/"+name, func(w http.ResponseWriter, r *http.Request) {
			templates.ExecuteTemplate(w, name+".html", nil)
		})
	}
	return mux, nil
}
