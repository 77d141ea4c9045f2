// The little that pages do by themselves: everything works without it, too.
"use strict";

// -- light or dark: as the system has it, until somebody chooses

const root = document.documentElement;
const darkSystem = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : darkSystem.matches;
}

function showTheme(theme) {
  root.dataset.theme = theme;
  document.querySelector('meta[name="color-scheme"]').content = theme;
  // Pictures that follow the system have a <source> for that.
  for (const source of document.querySelectorAll("picture source[data-dark]")) {
    source.media = theme === "dark" ? "all" : "not all";
  }
}

document.addEventListener("click", (event) => {
  if (!event.target.closest("[data-theme-switch]")) return;
  const theme = isDark() ? "light" : "dark";
  showTheme(theme);
  document.cookie = `theme=${theme}; path=/; max-age=31536000; samesite=strict`;
});

// -- moments in the clock of who looks; pictures are drawn with it, too

document.cookie = `zone=${Intl.DateTimeFormat().resolvedOptions().timeZone}; path=/; max-age=31536000; samesite=strict`;

const moments = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

function showMoments(within) {
  for (const time of within.querySelectorAll("time")) {
    const moment = new Date(time.dateTime);
    if (Number.isNaN(moment.getTime())) continue;
    if ("at" in time.dataset) time.textContent = moments.format(moment);
    time.title = moment.toString();
  }
}

// -- what asks before it does something; what is copied; what is chosen at once

document.addEventListener("submit", (event) => {
  const asked = event.submitter?.dataset.confirm ?? event.target.dataset.confirm;
  if (asked && !confirm(asked)) event.preventDefault();
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const place = document.getElementById(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(place.textContent.trim());
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(place);
  }
});

document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submit]")) event.target.form.requestSubmit();
});

// -- shortcuts: "/" to the search

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, textarea, select")) return;
  const search = document.querySelector('input[type="search"]');
  if (search) {
    event.preventDefault();
    search.focus();
  }
});

document.addEventListener("htmx:afterSwap", (event) => showMoments(event.target));
// What is not there any longer, or not ours, is not asked for again and again.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.xhr.status >= 400) event.detail.shouldSwap = false;
});
showMoments(document);

// -- pictures are drawn anew from time to time

for (const image of document.querySelectorAll("img[data-refresh]")) {
  const addresses = [image, ...image.parentElement.querySelectorAll("source")].map((each) => [each, each.src || each.srcset]);
  setInterval(() => {
    if (document.hidden) return;
    for (const [each, address] of addresses) {
      each[each === image ? "src" : "srcset"] = `${address}&at=${Date.now()}`;
    }
  }, 1000 * Number(image.dataset.refresh));
}
