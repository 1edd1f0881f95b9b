// The token becomes a cookie that no script can read.
document.getElementById("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const token = document.getElementById("token").value;
  const response = await fetch("/api/login", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ token }),
  });
  if (response.ok) {
    location.replace("/");
    return;
  }
  const notice = await response.json();
  document.getElementById("said").textContent = `${notice.message_zh} · ${notice.message}`;
});
