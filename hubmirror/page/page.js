// Without this script the page shows and searches all the same; it adds what needs a browser's help.
const status = document.getElementById("status");

for (const button of document.querySelectorAll("button[data-copies]")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(document.getElementById(button.dataset.copies)));
}

for (const button of document.querySelectorAll("button[data-repository]")) {
  button.hidden = false;
  button.addEventListener("click", () => showTags(button));
}

async function copy(source) {
  try {
    await navigator.clipboard.writeText(source.textContent);
    status.textContent = status.dataset.copied;
  } catch {
    // There is no clipboard for pages without TLS.
    getSelection().selectAllChildren(source);
    status.textContent = status.dataset.selected;
  }
}

async function showTags(button) {
  const { repository, list, base, tokens } = button.dataset;
  button.disabled = true;
  try {
    const fields = {};
    if (tokens) {
      const answer = await getJSON(`${tokens}&scope=repository:${repository}:pull`);
      fields.Authorization = `Bearer ${answer.token ?? answer.access_token}`;
    }
    const { tags } = await getJSON(`${base}/v2/${repository}/tags/list?n=200`, fields);
    const items = (tags ?? []).map((tag) => {
      const item = document.createElement("li");
      item.textContent = tag;
      return item;
    });
    document.getElementById(list).replaceChildren(...items);
    status.textContent = items.length ? `${items.length} ${status.dataset.tags}` : status.dataset.none;
    button.hidden = true;
  } catch {
    status.textContent = status.dataset.failed;
    button.disabled = false;
  }
}

async function getJSON(url, headers) {
  const answer = await fetch(url, { headers, credentials: "omit" });
  if (!answer.ok) throw new Error(answer.status);
  return answer.json();
}
