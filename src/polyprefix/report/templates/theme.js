"use strict";
// Controls are there for those who have scripts.
for (const part of document.querySelectorAll(".controls, .pager, #theme")) part.hidden = false;

{
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const preferred = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  // A browser may refuse storage to a file.
  try { chosen = localStorage.getItem("polyprefix-theme"); } catch { chosen = null; }
  const show = () => {
    const dark = chosen === null ? preferred.matches : chosen === "dark";
    root.dataset.theme = dark ? "dark" : "light";
    button.setAttribute("aria-pressed", String(dark));
  };
  button.addEventListener("click", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("polyprefix-theme", chosen); } catch { /* for this time only */ }
    show();
  });
  preferred.addEventListener("change", show);
  show();
}
