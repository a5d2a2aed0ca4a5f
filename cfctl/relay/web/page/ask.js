// What the relay is asked over HTTP.

export class Refused extends Error {
  constructor(status, brief) {
    super(brief);
    this.status = status;
  }
}

export const AWAY = "The relay cannot be reached.";

export async function ask(path, method = "GET", body = undefined) {
  let answer;
  try {
    answer = await fetch(path, {
      method,
      credentials: "same-origin",
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    // Each browser has its own words for it.
    throw new Refused(0, AWAY);
  }
  if (!answer.ok) {
    // Not everything that is asked for answers with an error of ours.
    let brief = answer.status === 401 ? "The token or link counts no more." : `The relay says ${answer.status}`;
    try {
      const { error } = await answer.json();
      // Who is not let in knows that; why is what helps.
      const parts = answer.status === 401 && error.details ? [error.details] : [error.brief, error.details];
      brief = parts.filter(Boolean).join(". ");
      brief = brief[0].toUpperCase() + brief.slice(1);
    } catch { /* no error of ours */ }
    throw new Refused(answer.status, brief);
  }
  return answer;
}

export const json = async (path) => (await ask(path)).json();
