// Keeps a page fresh: on a sign from the server the same page is fetched again and what changed in it is changed here.

const root = document.body;
const source = root.dataset.events;
// After a form that was refused this page's own address is only for forms.
const here = root.dataset.here || location.href;
const sign = document.querySelector("[data-sign]");

/** Make `old` look like `fresh`, touching only what differs, so that focus, selection and open parts stay. */
function morph(old, fresh) {
  if (old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName || old.dataset?.key !== fresh.dataset?.key) {
    old.replaceWith(fresh);
    return;
  }
  if (old.nodeType !== Node.ELEMENT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return;
  }
  if (old.isEqualNode(fresh)) return;
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !(name === "open" && old.nodeName === "DETAILS")) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  children(old, fresh);
}

function children(old, fresh) {
  const known = new Map([...old.children].filter((c) => c.dataset.key).map((c) => [c.dataset.key, c]));
  let at = old.firstChild;
  for (const next of [...fresh.childNodes]) {
    const mine = known.get(next.dataset?.key);
    if (mine) {
      if (mine === at) at = at.nextSibling;
      else old.insertBefore(mine, at);
      morph(mine, next);
    } else if (at && !at.dataset?.key && at.nodeName === next.nodeName) {
      const current = at;
      at = at.nextSibling;
      morph(current, next);
    } else {
      old.insertBefore(next, at);
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

/** Fetch this page and take over its live parts. */
async function refresh() {
  const answer = await fetch(here, { headers: { accept: "text/html" }, redirect: "error", cache: "no-store" });
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const fresh = page.querySelector(`[data-live="${part.dataset.live}"]`);
    if (fresh) morph(part, document.importNode(fresh, true));
  }
}

let busy = false;
let again = false;

async function soon() {
  if (busy || document.hidden) {
    again = true;
    return;
  }
  busy = true;
  again = false;
  try {
    await refresh();
  } catch {
    tell("waiting for the server");
  }
  setTimeout(() => {
    busy = false;
    if (again) soon();
  }, 1000);
}

function tell(word) {
  if (!sign || sign.textContent === word) return;
  sign.hidden = false;
  sign.textContent = word;
  sign.dataset.sign = word;
}

if (source) {
  let seen = null;
  const stream = new EventSource(source);
  stream.addEventListener("open", () => tell("live"));
  stream.addEventListener("message", ({ data }) => {
    const { mark } = JSON.parse(data);
    tell("live");
    if (seen !== null && seen !== mark) soon();
    seen = mark;
  });
  stream.addEventListener("error", () => {
    tell(stream.readyState === EventSource.CLOSED ? "not live" : "waiting for the server");
  });
  // "3 minutes ago" grows old even when nothing happens.
  setInterval(soon, 60_000);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && again) soon();
  });
  addEventListener("pagehide", () => stream.close());
  addEventListener("pageshow", (e) => e.persisted && location.reload());
}

// What was said is said once: not again when the page is loaded again.
const address = new URL(location.href);
if (address.searchParams.has("said")) {
  address.searchParams.delete("said");
  address.searchParams.delete("mark");
  history.replaceState(null, "", address);
}

// A form is sent once, however often its button is pressed.
document.addEventListener("submit", (e) => {
  const button = e.submitter;
  if (button instanceof HTMLButtonElement) setTimeout(() => (button.disabled = true));
});

// Of the small forms in a table one is open at a time; Escape closes it.
document.addEventListener("toggle", (e) => {
  if (!e.target.open || !e.target.matches("details.act")) return;
  for (const other of document.querySelectorAll("details.act[open]")) if (other !== e.target) other.open = false;
}, true);
document.addEventListener("keydown", (e) => {
  const open = e.key === "Escape" && document.querySelector("details.act[open]");
  if (open) {
    open.open = false;
    open.querySelector("summary").focus();
  }
});
